module davit.dev/tests/cluster/probe

go 1.25.0
