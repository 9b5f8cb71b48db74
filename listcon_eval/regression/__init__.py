"""The regression gate: are today's numbers still those of the baseline?"""
