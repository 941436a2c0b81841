// Package dhcpd is the DHCPv4 server: it answers clients with the addresses
// that the ERP binds to their switch port or MAC. One pure function, decide,
// turns a request into a reply plan and an Outcome; the server around it owns
// the sockets, the durable commit before an ACK and the observers.
//
// # Whose address is it
//
// The ways of Options.Match are tried in order; normally option 82 first.
//
// Option 82 names a switch and a port on it, read by the profile that
// Options.Option82 chooses for the device (package option82); without configuration
// remote-id is a MAC or address, without a remote-id the relay's address counts,
// and circuit-id is VLAN, unit and port or an interface name. The port wins over everything else: whoever is plugged in there gets an address of
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
//
// # What is on disk when
//
// A changed fact (a new client of an address, or another port or customer) is
// committed before its ACK leaves, together with the MAC report that it causes.
// The ACK waits no longer than Options.CommitTimeout and does not wait if the
// queue of commits is full or the disk fails: the binding in the ERP is the lease. Then
// the outcome is ack_before_commit, the record is written in the background, and
// the report, which is due as long as the ERP has another MAC, is made again by
// the next renewal. A renewal that changes nothing is only written in the background.
package dhcpd
