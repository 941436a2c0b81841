package dhcpd

import (
	"net/netip"

	"github.com/usher-agent/usher/dhcpd/lease"
	"github.com/usher-agent/usher/provision"
)

// Query is a client that might ask: Explain answers what would happen.
type Query struct {
	MAC       provision.MAC `json:"mac,omitzero"`
	Option82  lease.Hex     `json:"option82,omitempty"` // payload, without code and length
	GIAddr    netip.Addr    `json:"giaddr,omitzero"`
	Interface string        `json:"interface,omitempty"` // empty: not checked
}

// Explanation is what a DISCOVER of a Query would lead to now.
type Explanation struct {
	Outcome    Outcome                `json:"outcome"`
	Text       string                 `json:"text"`       // Outcome.Explain
	MatchedBy  string                 `json:"matched_by"` // option82, mac or empty
	Circuit    string                 `json:"circuit"`    // how option 82 was read
	Remote     string                 `json:"remote"`
	YourIP     netip.Addr             `json:"your_ip,omitzero"`
	Subscriber provision.SubscriberID `json:"subscriber,omitempty"`
	Device     provision.DeviceID     `json:"device,omitempty"`
	Port       uint32                 `json:"port,omitempty"`
	ServerID   netip.Addr             `json:"server_id,omitzero"`
	Via        string                 `json:"via"`             // relay, unicast, broadcast, frame, or none
	Swap       bool                   `json:"swap"`            // another MAC than the ERP's would be accepted and reported
	Lease      *lease.Record          `json:"lease,omitempty"` // of YourIP
}

// Explain runs the decision for a hypothetical DISCOVER.
func (s *Server) Explain(q Query) Explanation { return Explanation{} }
