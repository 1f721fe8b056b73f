"""The binaries, one per question: each parses its flags, runs a study or trains, records and draws."""
