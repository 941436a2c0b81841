// Package senders remembers who brought clients' packets here: relays, believed or
// refused, and the interfaces on which option 82 came without a relay's address. It
// tells of them in the log, once each, and in the status, with the lines of the
// configuration that would believe or refuse them.
package senders

import (
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
)

// State is what is thought of a sender. The set is closed: it is a metric label.
type State uint8

// The states. Those of relays first, then those of interfaces.
const (
	Relay             State = iota // listed, and so is the address that it sends from
	UnlistedSource                 // listed, but believed from an address that is not
	AnyRelay                       // believed because dhcp.relays is empty
	RelayUntrusted                 // refused, as are those that follow: the outcomes of the same names
	RelaySource                    //
	RelayNoSource                  //
	RelaySubscriber                //
	RelayInterface                 //
	LeaseQueryRefused              //
	TrustedInterface               // a switch on an interface of dhcp.trusted_interfaces
	AnySwitch                      // option 82 believed because dhcp.trusted_interfaces is left out
	Option82Untrusted              // option 82 left out of account: the interface is not listed
	stateEnd
)

// States returns all states.
func States() []State {
	all := make([]State, 0, stateEnd)
	for s := range stateEnd {
		all = append(all, s)
	}
	return all
}

// trust is what Judge says of a packet whose sender is in each state.
var trust = [stateEnd]v4.Trust{
	Relay:             {By: v4.VoucherRelay},
	UnlistedSource:    {By: v4.VoucherSource},
	AnyRelay:          {By: v4.VoucherAnyRelay},
	RelayUntrusted:    {Refused: outcome.RelayUntrusted},
	RelaySource:       {Refused: outcome.RelaySource},
	RelayNoSource:     {Refused: outcome.RelayNoSource},
	RelaySubscriber:   {Refused: outcome.RelaySubscriber},
	RelayInterface:    {Refused: outcome.RelayInterface},
	LeaseQueryRefused: {Refused: outcome.LeaseQueryRefused},
	TrustedInterface:  {By: v4.VoucherSwitch},
	AnySwitch:         {By: v4.VoucherAnySwitch},
	Option82Untrusted: {Refused: outcome.Option82Untrusted},
}

// String returns the voucher's or the outcome's word, such as "unlisted_source" or "relay_subscriber".
func (s State) String() string {
	switch {
	case s >= stateEnd:
		return "invalid"
	case trust[s].Refused != 0:
		return trust[s].Refused.String()
	}
	return trust[s].By.String()
}

// MarshalText implements encoding.TextMarshaler by String.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. A word that is none becomes a state
// whose String is "invalid": a command may be older than the agent that it asks.
func (s *State) UnmarshalText(b []byte) error {
	for *s = 0; *s < stateEnd && s.String() != string(b); *s++ {
	}
	return nil
}

// Refused returns why what the sender says is not believed; zero: it is.
func (s State) Refused() outcome.Outcome {
	if s >= stateEnd {
		return 0
	}
	return trust[s].Refused
}

// Switch reports whether the sender is a switch, or a client, on an interface, and no relay.
func (s State) Switch() bool { return s >= TrustedInterface && s < stateEnd }

// believedRelay reports whether the sender is a relay that is believed.
func (s State) believedRelay() bool { return s <= AnyRelay }

// limit is how many senders of a state are kept: of those that are believed as many as a
// large network has, so that the line to paste is whole.
func (s State) limit() int {
	if trust[s].Refused == 0 {
		return 1024
	}
	return 256
}

// stateOf returns the state of a packet's sender, when it was judged.
// ok: it has one; not a client that sends for itself, and not what was not looked at.
func stateOf(r *v4.Request) (s State, ok bool) {
	p := &r.P
	if p.Err != nil || p.Op() != 1 { // a server's answer is brought by nobody
		return 0, false
	}
	switch r.Trust.By {
	case v4.VoucherRelay:
		return Relay, true
	case v4.VoucherSource:
		return UnlistedSource, true
	case v4.VoucherAnyRelay:
		return AnyRelay, true
	case v4.VoucherSwitch:
		return TrustedInterface, true
	case v4.VoucherAnySwitch:
		return AnySwitch, true
	}
	why := r.Trust.Refused
	switch {
	case why != 0 && p.GIAddr().IsValid(): // a leasequery without one is anybody's who writes it, and is answered nowhere
	case why == 0 && !p.HasOption82() && p.RelayInfoCount() > 0: // Judge left it out of account
		why = outcome.Option82Untrusted
	default:
		return 0, false
	}
	for s := range stateEnd {
		if trust[s].Refused == why {
			return s, true
		}
	}
	return 0, false
}
