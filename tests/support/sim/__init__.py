"""The pure cores of client, broker and worker, joined by a seeded fake network and clock.

One run is a list of actions (actions.py) that come out of one seed and are done to a world
(world.py): clients ask, workers die, connections break. In between, the world's agenda lets
messages arrive, workers work and time pass. After each event the cores check their invariants and
the oracle (oracle.py) checks what they promise to their users.

Everything random comes from dice (dice.py) whose seeds stand in the actions, so a list of actions
is all that a failure needs: the same list fails the same way, and shrink.py drops from it whatever
is not needed for that.
"""
