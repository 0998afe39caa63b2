"""The processes of a node: who has the data folder, who runs in it, who talks to whom."""
