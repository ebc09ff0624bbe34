"""The language model that everything stands on, and the ways to read it.

Tensor names end in their shape:

    B  batch (users, segments)     S  segments            C  candidates of one user
    N  tokens of the context       M  tokens of one candidate's block
    L  tokens in general           T  context and candidates laid in one row, N + C·M
    D  model width                 H  attention heads     G  key-value heads
    K  width of one head           V  vocabulary          P  prompt tokens
    A  tokens that a generated text may go on with
"""
