// Package socket is where the DHCP server meets the kernel: it takes datagrams in
// batches and says which interface each came in on, sends a reply as a datagram or as
// a frame, asks wires by ARP, and tells what the kernel knows of this host's addresses
// and of lost packets. It knows where packets go and nothing of why.
//
// One UDP socket receives for all interfaces and tells which one by IP_PKTINFO; some
// AF_PACKET sockets send to clients that have no address yet. Those receive
// nothing (protocol 0), so they cost the forwarded packets of the router nothing. On a
// loopback address there is the UDP socket alone, which needs no right.
//
// Nothing waits until something is sent. Replies to next hops that do not answer, and to interfaces that are
// slow, have room of their own (hops, aside, frameSockets).
package socket
