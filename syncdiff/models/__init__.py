"""The compact profile's networks and its exact pixel codec."""
