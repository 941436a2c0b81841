package ruleset

import (
	"github.com/google/nftables/expr"

	"github.com/usher-agent/usher/provision/access"
)

// multicast returns the rules for multicast that this router forwards. No address in
// it says whom it reaches; the interface does by which it goes out, if nobody but
// blocked subscribers is behind that. It is the last of what is looked at: a packet
// that is none costs one comparison.
func multicast() []Rule {
	return []Rule{
		rule(chainForward, "routed multicast", toMulticast(), goTo(chainMulticast)),
		rule(chainMulticast, "to a stopped subscriber", outBy(access.SetAloneStopped), counter(), drop()),
		pass(PassGarden, chainMulticast, "to a paused subscriber", outBy(access.SetAlonePaused), from(access.SetGarden)),
		rule(chainMulticast, "to a paused subscriber", outBy(access.SetAlonePaused), counter(), drop()),
	}
}

// toMulticast finds packets to a group.
func toMulticast() term {
	return term{"ip daddr 224.0.0.0/4", []fact{isIPv4}, []expr.Any{
		destination.loadAddr(1),
		// [ bitwise reg 1 = ( reg 1 & 0x000000f0 ) ^ 0x00000000 ]
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: []byte{0xf0, 0, 0, 0}, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0xe0, 0, 0, 0}},
	}}
}

// outBy is "oifname @set".
func outBy(set access.Set) term {
	return end("oifname @"+set.String(),
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Lookup{SourceRegister: 1, SetName: set.String()})
}
