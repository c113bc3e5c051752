"""Client of XZepr, the event provenance server. Needs no part of the server.

`Client` speaks the REST contract; `each` walks the pages of a search; `Client.follow` follows the stream and resumes by itself. Everything that
goes wrong is a `ClientError`.
"""

from xzepr_client.client import Client, each
from xzepr_client.errors import ClientError, Fault, NoAnswer, ProblemError, UnexpectedAnswer
from xzepr_client.models import (
    Artifact,
    ArtifactSeen,
    BatchItem,
    Evaluation,
    Event,
    EventReceiver,
    EventReceiverChanges,
    EventReceiverGroup,
    EventReceiverGroupChanges,
    Gate,
    GroupArtifact,
    GroupStatus,
    NewEvent,
    NewEventReceiver,
    NewEventReceiverGroup,
    Page,
    Pagination,
    ReceiverRef,
    StreamPosition,
    Timeline,
    TimelineEvent,
    TimelineGroup,
)
from xzepr_client.stream import Envelope, Message
from xzepr_client.transport import BASE_PATH, DEFAULT_URL
from xzepr_client.version import __version__

__all__ = [
    "BASE_PATH",
    "DEFAULT_URL",
    "Artifact",
    "ArtifactSeen",
    "BatchItem",
    "Client",
    "ClientError",
    "Envelope",
    "Evaluation",
    "Event",
    "EventReceiver",
    "EventReceiverChanges",
    "EventReceiverGroup",
    "EventReceiverGroupChanges",
    "Fault",
    "Gate",
    "GroupArtifact",
    "GroupStatus",
    "Message",
    "NewEvent",
    "NewEventReceiver",
    "NewEventReceiverGroup",
    "NoAnswer",
    "Page",
    "Pagination",
    "ProblemError",
    "ReceiverRef",
    "StreamPosition",
    "Timeline",
    "TimelineEvent",
    "TimelineGroup",
    "UnexpectedAnswer",
    "__version__",
    "each",
]
