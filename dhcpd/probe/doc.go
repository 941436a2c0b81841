// Package probe is a DHCP test client. It sends one message, or the whole
// exchange of DISCOVER to ACK, exactly as it is told, wrong ones too: any
// option, any option 82 and more than one of them. It speaks as a client on an
// interface (Link), or as a relay (Relay), and renders what was said as text. It
// is what "usher probe" runs, and what the tests and the demo ask the server with.
//
// Nothing here is used by the server: its codec is dhcpd/wire, while packets are
// read here by another one (insomniacslk/dhcp), so that the two check each other.
package probe
