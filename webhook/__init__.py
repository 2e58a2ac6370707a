"""Admission: decides about requests, patches pods, explains refusals; and the server around that.

`decide.decide` and `decide.lookup` are the two pure entry points; the server and the commands call both with the same
three things (request, configuration, snapshot) and answer with the same bytes (`review`). Folders are layers: `pod` on
`configuration`, `rewrite` on `pod`, `rules` on both, `admission` on the rules, one file per path.
"""
