"""From trained networks to masks of new patients, and of a sweep's own test cases.

One file per question: `networks` (which of a results folder), `cases` (which images of whom),
`geometry` (to the grid that the networks were trained on, and back), `ensemble` (what they make of
an image together), `new_patients` (case by case, onto disk), `tested` (a sweep's own test cases).
"""
