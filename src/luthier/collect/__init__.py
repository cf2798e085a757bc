"""What users have, made into examples: logs, tables, edited answers, and drafts that a person accepts.

A source gives rows (`logs.py` with what a record is in `log_record.py` to `log_filters.py`, `table.py`,
`edits.py`, `drafts.py` with `acceptance.py`), a row is checked by the very reader of examples
(`example_row.py`), and what was taken or not is counted (`tally.py`).
"""
