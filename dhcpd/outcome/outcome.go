// Package outcome has every end that a packet may have, with its label and its sentence.
package outcome

import "fmt"

// Outcome is what became of one packet. Every packet ends in exactly one. The
// set is closed: it is a metric label. The zero value is invalid.
type Outcome uint8

// The outcomes; Explain says each in a sentence.
const (
	// Answered.
	Ack Outcome = iota + 1
	AckBeforeCommit
	AckShortened
	Offer
	InformAck
	LeaseActive
	LeaseUnassigned
	LeaseUnknown
	PoolOffer
	PoolAck
	// Refused with a NAK.
	NakWrongAddress
	NakNotBound
	NakWrongNetwork
	NakUnknown
	NakOtherClient
	NakNoSubnet
	NakOverruled
	// Taken note of; these messages have no answer.
	Released
	Declined
	PoolReleased
	PoolDeclined
	// Not answered.
	Malformed
	NotRequest
	BadHardware
	UnexpectedType
	Option82Malformed
	Option82Double
	InterfaceOff
	Standby
	Stale
	LimitedClient
	LimitedPort
	LimitedRelay
	RelayUntrusted
	RelaySource
	RelayNoSource
	RelaySubscriber
	RelayInterface
	Option82Untrusted
	NotForUs
	RequestIncomplete
	NotReady
	UnknownClient
	Option82Unread
	DevicesUnread
	UnknownDevice
	UnknownPort
	UnknownVLAN
	VLANShared
	MatchDisagrees
	MACElsewhere
	SaysLess
	WrongNetwork
	PortFull
	HolderLive
	PortMACLimit
	TakeoverDamped
	SubscriberUnclear
	MACReported
	MACRefused
	NoSubnet
	NoServerID
	RenewUnknown
	InitRebootUnknown
	NotAuthoritative
	ReleaseUnknown
	DeclineUnknown
	InformUnknown
	LeaseQueryRefused
	NoPool
	PoolExhausted
	PoolConflict
	PoolNotDurable
	SendFailed
	SendFull

	outcomeEnd // not an outcome
)

// outcomeTexts is indexed by Outcome and never written to.
var outcomeTexts = [outcomeEnd]struct{ name, explain string }{
	Ack:               {"ack", "The client asked for the address that is bound to it and was acknowledged."},
	AckBeforeCommit:   {"ack_before_commit", "The client was acknowledged before its lease record was on disk, because the disk failed or was slower than the commit time-out; the binding itself is safe in the ERP."},
	AckShortened:      {"ack_shortened", "The address is not bound to the client any more, and to nobody else: it may keep it for a minute more, then it is told to start anew (dhcp.on_binding_change)."},
	Offer:             {"offer", "The client looks for an address and was offered the one bound to it."},
	InformAck:         {"inform_ack", "The client has its bound address already and was told the rest of its settings."},
	LeaseActive:       {"lease_active", "An access node asked who has an address and was told the lease."},
	LeaseUnassigned:   {"lease_unassigned", "An access node asked about an address that is served here and leased to nobody."},
	LeaseUnknown:      {"lease_unknown", "An access node asked about a client without a lease, or about an address that is not served here."},
	PoolOffer:         {"pool_offer", "The ERP binds no address to the client, so it was offered one of a pool."},
	PoolAck:           {"pool_ack", "The client got, or keeps, an address of a pool; the lease was on disk before the answer."},
	NakUnknown:        {"nak_unknown", "The ERP does not know the client, and dhcp.unknown_clients is nak, so it was told that the address is not its own."},
	NakWrongAddress:   {"nak_wrong_address", "The client asked for another address than the one bound to it now, or than the one it has of a pool, so it was told to start anew."},
	NakNotBound:       {"nak_not_bound", "The client asked for an address that is not bound to it any more, so it was told to start anew."},
	NakOtherClient:    {"nak_other_client", "The client asked to keep an address that another MAC has leased meanwhile, so it was told to start anew."},
	NakNoSubnet:       {"nak_no_subnet", "The client asked for an address that is in none of the configured dhcp.subnets, or not any more, so it was told to start anew."},
	NakWrongNetwork:   {"nak_wrong_network", "The client asked for an address, but the ERP has its MAC only for addresses of other networks than the one that it is in (dhcp.shared_networks joins those that share a wire), so it was told to start anew."},
	NakOverruled:      {"nak_overruled", "The ERP got another MAC for the address since the client has it, and nothing but MACs tells who a client is here, so it was told to start anew; the client with the new MAC gets the address."},
	Released:          {"released", "The client gave its address back; the binding stays, the lease record is marked released."},
	Declined:          {"declined", "The client says that somebody else already uses its bound address; the binding stays, look for a device with that address set by hand."},
	PoolReleased:      {"pool_released", "The client gave an address of a pool back; others may have it now."},
	PoolDeclined:      {"pool_declined", "The client says that somebody else already uses the address it got from a pool; the address is in quarantine for dhcp.quarantine, and the client asks for another."},
	Malformed:         {"malformed", "The packet is not a readable DHCP packet."},
	NotRequest:        {"not_request", "The packet is a reply of a server (op is not 1), not a request."},
	BadHardware:       {"bad_hardware", "The packet has no usable 6-byte hardware address of a client."},
	UnexpectedType:    {"unexpected_type", "The message type is none that clients send to a DHCP server."},
	Option82Malformed: {"option82_malformed", "The sub-options do not fill option 82 exactly, so nobody can say which port it names."},
	Option82Double:    {"option82_double", "The packet has more than one option 82, or one with the same sub-option twice and two values: one of them is forged, or two boxes on the way add theirs."},
	InterfaceOff:      {"interface_off", "The packet came in on an interface that dhcp.interfaces does not list."},
	Standby:           {"standby", "This host does not have the address of dhcp.answer_while_holding now, so it leaves the answer to the one that has it."},
	Stale:             {"stale", "The packet waited for the agent to start again, for more than 4 s: its client has asked again meanwhile, and is answered then."},
	LimitedClient:     {"limited_client", "This MAC sends more packets from here (its port; else its relay; else its interface and address) than dhcp.limits.client allows; the packet was dropped unread, as are its others from here until it calms down. The same MAC elsewhere is not touched."},
	LimitedPort:       {"limited_port", "More packets come from this port (one option 82 behind one relay or on one interface, or one interface) than dhcp.limits.port allows: a loop, a broken device or a flood; clients behind other ports are not touched."},
	LimitedRelay:      {"limited_relay", "More packets come from this relay (by the address that it sends from, if dhcp.relays has it), or on this interface from clients and from relays that are not listed, than dhcp.limits.relay allows; clients behind other listed relays and on other interfaces are not touched."},
	RelayUntrusted:    {"relay_untrusted", "The relay address (giaddr) is in none of the prefixes of dhcp.relays."},
	RelaySource:       {"relay_source", "The packet names a relay (giaddr) of dhcp.relays but comes from an address that is not there, or from one that dhcp.option82_relays does not list although it lists giaddr."},
	RelayNoSource:     {"relay_no_source", "The packet names a relay (giaddr) but comes from no address, or from one of this host: no relay sends so, a client that poses as one may."},
	RelaySubscriber:   {"relay_subscriber", "The relay address (giaddr), or the address that the packet comes from, is bound by the ERP or of a pool: a subscriber poses as a relay. A switch with such an address has to be in dhcp.relays as one address."},
	RelayInterface:    {"relay_interface", "The packet names a relay (giaddr) but came in on an interface of subscribers (dhcp.subscriber_interfaces, dhcp.vlan_interfaces). A switch there that relays has to be in dhcp.relays as one address."},
	Option82Untrusted: {"option82_untrusted", "The packet has option 82 that nobody vouches for, so it is left out of account, and nothing else tells who the client is: it came through a relay that dhcp.option82_relays does not list, or without a relay address on an interface that dhcp.trusted_interfaces does not list."},
	NotForUs:          {"not_for_us", "The client chose another DHCP server (option 54)."},
	RequestIncomplete: {"request_incomplete", "The message names no address where its kind must name one."},
	NotReady:          {"not_ready", "No bindings have been loaded yet, neither from the ERP nor from disk."},
	UnknownClient:     {"unknown_client", "The ERP has no binding for this client: its MAC is bound to no address and there is no option 82 to tell its port."},
	Option82Unread:    {"option82_unread", "Option 82 has a layout that cannot be read as switch and port, and the MAC is bound to no address."},
	DevicesUnread:     {"devices_unread", "Option 82 leads to nobody, but the ERP's list of switches was never read, so nobody can say that it does not have the port; the client is neither refused nor taken for a guest until then."},
	UnknownDevice:     {"unknown_device", "Option 82 names a switch that the ERP does not know by this MAC or address, and the MAC of the client is bound to no address."},
	UnknownPort:       {"unknown_port", "The switch is known, but the ERP binds no address to this port, and none to the MAC of the client."},
	UnknownVLAN:       {"unknown_vlan", "The interface is that of a VLAN, but the ERP binds no address to this VLAN, and none to the MAC of the client."},
	VLANShared:        {"vlan_shared", "Several customers of the ERP are in the VLAN of this interface, so it cannot tell which one asks."},
	MatchDisagrees:    {"match_disagrees", "The ways of dhcp.match that must agree name different addresses: for example, the ERP has the MAC on another port than option 82 names."},
	MACElsewhere:      {"mac_elsewhere", "The ERP has the MAC for a line elsewhere: the client is at another port or VLAN that the ERP knows, or the line's lease is live at another one. A MAC alone takes nothing there."},
	SaysLess:          {"says_less", "The packet tells no port and no VLAN, its MAC leads to nobody, and the address that it is about is found by a port or VLAN: the same message is expected from there, through a relay or switch that adds option 82, so this copy is left alone."},
	WrongNetwork:      {"wrong_network", "The ERP has the MAC only for addresses of other networks than the one that the client is in, by its relay or interface: there they would not work. If the networks share one wire, dhcp.shared_networks has to say so."},
	PortFull:          {"port_full", "Every address bound to this port, or to this MAC, is in use by another client, or the one that a pool gives its customer is."},
	HolderLive:        {"holder_live", "The ERP gives the client an address that another customer, or a guest, still has leased. It gets it when that one was refused, at its next renewal, or when its lease is over."},
	PortMACLimit:      {"port_mac_limit", "As many other clients as dhcp.max_macs_per_port allows have live leases, or offers of a pool, on this port."},
	TakeoverDamped:    {"takeover_damped", "Another client has the address and took it over itself a while ago: two devices fight over it. It passes on at most once per renewal time (T1); until then the client is not answered."},
	SubscriberUnclear: {"subscriber_unclear", "Several customers of the ERP without an address have this port or this MAC, and none of them alone the client's MAC, so nobody can say whose client it is."},
	MACReported:       {"mac_reported", "The ERP has another MAC for this address: the new one was reported, and the client is answered when the ERP has it (dhcp.mac_change: report)."},
	MACRefused:        {"mac_refused", "The ERP has another MAC for this address, and dhcp.mac_change: refuse keeps it; so does report where the ERP has no address that it could be told by."},
	NoSubnet:          {"no_subnet", "The address bound to the client is in none of the configured dhcp.subnets."},
	NoServerID:        {"no_server_id", "The interface has no address, the subnet no gateway and dhcp.server_id is not set, so the server cannot name itself in a reply."},
	RenewUnknown:      {"renew_unknown", "The client wants to renew an address past the relay and neither a lease nor the MAC in the ERP says that it is its own; silence makes it ask again through the relay."},
	InitRebootUnknown: {"init_reboot_unknown", "The client wants its earlier address back and nothing is known about it; RFC 2131 asks for silence."},
	NotAuthoritative:  {"not_authoritative", "The client asked for a wrong address, but dhcp.authoritative is off, so it was not refused."},
	ReleaseUnknown:    {"release_unknown", "The client gives back an address that it has no lease for, or not from where the lease is; nothing was changed."},
	DeclineUnknown:    {"decline_unknown", "The client declines an address that is not bound to it, or not from where the lease is; nothing was changed."},
	InformUnknown:     {"inform_unknown", "The client asks for settings for an address that the ERP binds to nobody."},
	LeaseQueryRefused: {"leasequery_refused", "Somebody asked who has which address, and its relay address (giaddr) is in none of the prefixes of dhcp.leasequery.from."},
	NoPool:            {"no_pool", "The client is to get an address of a pool, but no pool of its kind serves the wire that it is on."},
	PoolExhausted:     {"pool_exhausted", "The client is to get an address of a pool, and none is free there: all are leased, offered to others, in quarantine or bound by the ERP."},
	PoolConflict:      {"pool_conflict", "The address that was to be offered answered to ARP: somebody uses it whom nobody gave it to. It is in quarantine; the client gets another one when it asks again."},
	PoolNotDurable:    {"pool_not_durable", "The lease of a pool's address could not be written to disk in time, so the client got no answer: after a crash the address might go to somebody else. The client asks again."},
	SendFailed:        {"send_failed", "The reply was ready but the kernel refused to send it. One that it took and dropped some seconds later, because the next hop does not answer to ARP, is counted as the answer that it was."},
	SendFull:          {"send_full", "The reply was ready and was dropped: too many replies wait in the kernel already, for next hops that do not answer to ARP or for an interface that is slow. Nobody is waited for; the client asks again."},
}

// All lists every outcome, for metrics and documentation.
func All() []Outcome {
	all := make([]Outcome, 0, outcomeEnd-1)
	for o := Outcome(1); o < outcomeEnd; o++ {
		all = append(all, o)
	}
	return all
}

// String returns the label, such as "nak_wrong_address".
func (o Outcome) String() string {
	if o == 0 || o >= outcomeEnd {
		return "invalid"
	}
	return outcomeTexts[o].name
}

// Explain says in a sentence for people what happened and why.
func (o Outcome) Explain() string {
	if o == 0 || o >= outcomeEnd {
		return "Not an outcome."
	}
	return outcomeTexts[o].explain
}

// Answered reports whether a reply was sent: OFFER, ACK or NAK.
func (o Outcome) Answered() bool { return o >= Ack && o <= NakOverruled }

// MarshalText implements encoding.TextMarshaler by String.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// Parse reads the label that String returns.
func Parse(s string) (Outcome, error) {
	for o := Outcome(1); o < outcomeEnd; o++ {
		if outcomeTexts[o].name == s {
			return o, nil
		}
	}
	return 0, fmt.Errorf("outcome %q: no such outcome", s)
}

// UnmarshalText implements encoding.TextUnmarshaler by Parse.
func (o *Outcome) UnmarshalText(b []byte) error {
	v, err := Parse(string(b))
	if err == nil {
		*o = v
	}
	return err
}
