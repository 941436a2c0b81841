// Package options says what clients are told beside their address and its times: sets
// of DHCP options that are laid upon each other, for everybody, by subnet, by pool and by
// class of client; and which class a client is of. Everything is encoded when a
// configuration is compiled, and nothing changes afterwards.
package options
