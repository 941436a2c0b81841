// Package v4 decides what becomes of one DHCPv4 packet. Decide is a pure function: time,
// request, bindings, leases, pools and configuration in, a Decision out, which is
// a plan that somebody else carries out, and ends in one Outcome. Nothing here looks at a clock, a
// socket or a disk, and nothing changes after Compile.
//
// # Whose address is it
//
// The ways of Options.Match are tried in order; normally option 82 first.
//
// Package line says which port option 82 names. The port wins over everything else:
// whoever is plugged in there gets an address of
// that port, even if the ERP has the MAC on another port. Of several rows the
// client gets, in this order: the one with its MAC; the one it has leased; one
// without a MAC that no other client has leased, which so learns the MAC; one with
// another MAC that nobody has leased. If all are taken the outcome is port_full.
// A port with one row gives it to any client, for that is what a new router looks
// like. Within a class the address that the client asks for comes first, then
// the one it had before, then one that fits the relay's subnet.
//
// By MAC a client gets a row that has its MAC, unless another client took that
// address over through its port.
//
// A client that renews without option 82, which is what unicast past a relay
// looks like, is known by its lease record; the binding must still be of the same
// customer or port.
package v4
