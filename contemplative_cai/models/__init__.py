"""Who answers: a model in this process, at a server, or scripted; and the journal in front of it."""
