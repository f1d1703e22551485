module cluster/internet

go 1.26.0
