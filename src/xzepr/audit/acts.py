"""Every act that leaves a row in the audit log. docs/reference/audit.md has a line for each; a test compares."""

from enum import StrEnum


class Act(StrEnum):
    """`subject.action`. What is not here is not recorded under that name: a test looks through the code."""

    # Denied.
    ACCESS_DENIED = "access.denied"
    EVENT_POST_REFUSED = "event.post_refused"
    # Definitions.
    RECEIVER_CREATE = "receiver.create"
    RECEIVER_UPDATE = "receiver.update"
    RECEIVER_DELETE = "receiver.delete"
    GROUP_CREATE = "group.create"
    GROUP_UPDATE = "group.update"
    GROUP_ENABLE = "group.enable"
    GROUP_DISABLE = "group.disable"
    GROUP_DELETE = "group.delete"
    GROUP_EVALUATE = "group.evaluate"
    GROUP_MEMBER_ADD = "group.member_add"
    GROUP_MEMBER_REMOVE = "group.member_remove"
    # Accounts.
    AUTH_LOGIN = "auth.login"
    AUTH_LOGOUT = "auth.logout"
    AUTH_REFRESH_REUSE = "auth.refresh_reuse"
    API_KEY_CREATE = "api_key.create"
    API_KEY_REVOKE = "api_key.revoke"
    USER_CREATE = "user.create"
    USER_CHANGE_EMAIL = "user.change_email"
    USER_CHANGE_PASSWORD = "user.change_password"
    USER_CHANGE_ROLES = "user.change_roles"
    USER_ENABLE = "user.enable"
    USER_DISABLE = "user.disable"
    USER_DELETE = "user.delete"
    # Removal.
    EVENT_REDACT = "event.redact"
    RETENTION_APPLY = "retention.apply"
    RETENTION_HOLD_ADD = "retention.hold_add"
    RETENTION_HOLD_REMOVE = "retention.hold_remove"
    # The installation.
    SERVER_START = "server.start"
