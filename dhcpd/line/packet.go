package line

import (
	"net/netip"

	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

// Packet is a packet and where it came in: what there is to tell a client's line
// by. Its slices are those of the bytes that it was read from.
type Packet struct {
	wire.Packet
	Err      error          // why the packet could not be read
	Relay    wire.RelayInfo // its option 82; empty once Disbelieve has left it out of account
	RelayErr error          // why that could not be read

	From    netip.AddrPort // sender
	Ingress Ingress        // interface that it came in on

	believed bool             // option 82 is there and has a word to say
	decoded  option82.Decoded // room for what a profile reads
}

// Read fills the views of p from b.
func (p *Packet) Read(b []byte) {
	p.Relay, p.RelayErr, p.believed = wire.RelayInfo{}, nil, false
	if p.Err = p.Parse(b); p.Err == nil && p.RelayInfoCount() > 0 {
		p.Relay, p.RelayErr = wire.ParseRelayInfo(p.RelayInfo())
		p.believed = true
	}
}

// Disbelieve leaves option 82 out of account: nobody vouches for it. Its bytes stay, for the
// answer echoes them all the same (RFC 3046 section 2.2).
func (p *Packet) Disbelieve() { p.Relay, p.RelayErr, p.believed = wire.RelayInfo{}, nil, false }

// HasOption82 reports whether the packet has an option 82 that counts.
func (p *Packet) HasOption82() bool { return p.believed }

// Option82 returns the payload of an option 82 that counts; nil without one.
func (p *Packet) Option82() []byte {
	if !p.believed {
		return nil
	}
	return p.RelayInfo()
}

// VLAN returns the VLAN that the client is in by the interface's name; zero if
// that is not told. What a relay forwards came in somewhere else.
func (p *Packet) VLAN() uint16 {
	if p.GIAddr().IsValid() {
		return 0
	}
	return p.Ingress.VLAN
}

// client returns the hardware address of the client.
func (p *Packet) client() provision.MAC {
	mac, _ := p.MAC()
	return mac
}
