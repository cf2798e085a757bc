"""What people say of several answers to one prompt: asked, kept, compared, and made into preferences.

A question is a conversation with its answers (`questions.py`; sampled ones are kept by `kept.py`), a task is
what is asked of a rater (`tasks.py`, what they type: `typed.py`), a judgement is what they said
(`judgements.py`, on lines of a `journal.py`). What follows from judgements: `opinions.py`, `preferences.py`,
`agreement.py`.
"""
