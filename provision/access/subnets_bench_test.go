package access

import (
	"net/netip"
	"testing"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// What a round works out after the change of one state, with as many subnets as customers.
func BenchmarkWantOf100kSubnets(b *testing.B) {
	const n = 100_000
	in := provisiontest.Input(n)
	plain, _ := provision.Build(in)
	for i := range n {
		at := uint32(10<<24) + uint32(i)<<3
		in.CustomerSubnets = append(in.CustomerSubnets, provision.Subnet{Prefix: netip.PrefixFrom(addrOf(at), 29), Subscriber: in.Lines[i].Subscriber})
	}
	nets, _ := provision.Build(in)
	for _, tt := range []struct {
		name string
		snap *provision.Snapshot
		in   Inputs
	}{{"without", plain, Inputs{}}, {"with", nets, Inputs{}}, {"without, guarded", plain, Inputs{GuardDirect: []string{"br0"}}}, {"with, guarded", nets, Inputs{GuardDirect: []string{"br0"}}}} {
		b.Run(tt.name, func(b *testing.B) {
			id := in.Lines[0].Subscriber
			for b.Loop() {
				tt.snap = tt.snap.WithStates(map[provision.SubscriberID]provision.State{id: provision.StatePause})
				Want(tt.snap, tt.in)
			}
		})
	}
}
