// Package dhcpd is the DHCPv4 server: limits, the durable commit before an ACK, the
// pools' allocators, the probe of an address before it is offered, and the observers.
// What is answered is decided by package v4, a pure function of the packet (handler.go
// has its way), the bindings, the leases, the pools and the configuration. Packets
// come and go through package socket.
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
//
// # What a reload replaces
//
// Everything that is configured is one generation: what decides, interfaces, limits and
// pools. It does not change and is published by one pointer. Only the allocators of
// pools that stay as they are go on from one generation to the next.
package dhcpd
