"""The processes of an installation: a parent that supervises, web workers, the relay."""
