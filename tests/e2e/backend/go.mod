module sluice/backend

go 1.26
