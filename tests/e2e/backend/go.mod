module sluice/backend

go 1.26

require github.com/pires/go-proxyproto v0.12.0
