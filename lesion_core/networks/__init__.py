"""Which networks there are: the paper's, MONAI's, and those of the user's own.

names       how a network is called, and what its name says without PyTorch
named       a network by its name, its initial weights, its place on a device
monai_nets  MONAI's networks, and what of their arguments follows from the data
own         networks of the user's own, by import path
fitting     whether a network fits patches and a loss, and what one patch costs
saved       model.pt: a trained network, written and read back
"""
