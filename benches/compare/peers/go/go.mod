module sluice/compare/go

go 1.22
