"""How a program that runs is reached from outside: the door at which ``tracesvc attach`` knocks."""
