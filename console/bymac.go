package console

import (
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
)

// ByMACStatus is what clients were given, and refused, by their MAC, identifier or lease alone.
type ByMACStatus struct {
	Given     []ByMACCount `json:"given"`     // what was acknowledged, by why it may be the wrong place; not zero
	Elsewhere uint64       `json:"elsewhere"` // packets of outcome.MACElsewhere since the start
	Advice    string       `json:"advice"`    // what an operator may do about Elsewhere; empty: nothing
}

// ByMACCount counts one kind of acknowledgement.
type ByMACCount struct {
	Line    string `json:"line"`    // as v4.Stray has it
	Acks    uint64 `json:"acks"`    // since the start
	Clients int    `json:"clients"` // different ones among the packets that are remembered
	Text    string `json:"text"`    // what Line means
	Advice  string `json:"advice"`  // what an operator may do
}

// byMAC counts from the metrics and the packets remembered.
func (d *Deps) byMAC() ByMACStatus {
	st := ByMACStatus{Given: []ByMACCount{}}
	if d.Metrics == nil {
		return st
	}
	clients := map[v4.Stray]map[provision.MAC]bool{}
	if d.Events != nil {
		for _, e := range d.Events.Find(dhcpd.EventFilter{Stray: true}) {
			if !acknowledged(e.Outcome) {
				continue
			}
			if clients[e.Stray] == nil {
				clients[e.Stray] = map[provision.MAC]bool{}
			}
			clients[e.Stray][e.MAC] = true
		}
	}
	for s := v4.StrayNone + 1; s < v4.Strays(); s++ {
		if n := valueOf(d.Metrics.strays[s]); n > 0 {
			st.Given = append(st.Given, ByMACCount{Line: s.String(), Acks: n, Clients: len(clients[s]), Text: s.Explain(), Advice: strayAdvice(s)})
		}
	}
	for _, row := range d.Metrics.packets {
		st.Elsewhere += valueOf(row[outcome.MACElsewhere])
	}
	if st.Elsewhere > 0 {
		st.Advice = Advice(outcome.MACElsewhere)
	}
	return st
}

// acknowledged reports whether an outcome is that of an ACK by which a client has an address.
func acknowledged(o outcome.Outcome) bool {
	switch o {
	case outcome.Ack, outcome.AckBeforeCommit, outcome.PoolAck:
		return true
	}
	return false
}

// strayWord is the word of a stray; empty for none.
func strayWord(s v4.Stray) string {
	if s == v4.StrayNone {
		return ""
	}
	return s.String()
}

// strayAdvice says what an operator may do about an address that was given by MAC.
func strayAdvice(s v4.Stray) string {
	switch s {
	case v4.StrayUnread:
		return Advice(outcome.Option82Unread)
	case v4.StrayUnknownDevice:
		return Advice(outcome.UnknownDevice) + " usher option82 suggest shows what is sent."
	case v4.StrayUnknownPort:
		return Advice(outcome.UnknownPort) + " usher option82 suggest shows what is sent."
	case v4.StrayUnknownVLAN:
		return Advice(outcome.UnknownVLAN)
	case v4.StrayMoved:
		return "Give the address its port or VLAN in the ERP if it is not to follow its MAC: until then whoever writes this MAC gets it."
	}
	return ""
}
