"""The log of acts: who did what, when, from where; sealed so that a change of it shows."""
