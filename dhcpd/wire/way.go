package wire

// Way is how a reply travels (RFC 2131 section 4.1). Package v4 chooses it, package
// socket follows it, and neither needs to know the other for that.
type Way uint8

// The ways of a reply.
const (
	WayNone      Way = iota
	WayRelay         // UDP to the relay
	WayUnicast       // UDP to the address that the client has
	WayBroadcast     // link-layer broadcast to 255.255.255.255 on the interface of the request
	WayFrame         // link-layer unicast to chaddr and the client's address, which it need not have configured yet
)

// String returns none, relay, unicast, broadcast or frame.
func (w Way) String() string {
	return [...]string{"none", "relay", "unicast", "broadcast", "frame"}[w]
}
