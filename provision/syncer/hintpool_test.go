package syncer

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// Hints of a bad import block no more than the limit, also where nobody has an address.
func TestHintsAreBoundedWithoutAddresses(t *testing.T) {
	for name, start := range map[string]func(in *provision.Input){
		"rows for pools": func(in *provision.Input) {
			for i := range in.Lines {
				in.Lines[i].Addresses = nil
			}
		},
		"subnets": func(in *provision.Input) {
			in.Lines = in.Lines[:1] // an answer without a row is held as a whole
			in.Lines[0].Addresses = nil
			for i, sub := range in.Subscribers[1:] {
				in.CustomerSubnets = append(in.CustomerSubnets, provision.Subnet{Subscriber: sub.ID, Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113 + byte(i/64), byte(i % 64 * 4)}), 30)})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBooks(200)
				b.change(func(b *books) { start(&b.truth) })
				s := New(Options{PollInterval: time.Hour, RefreshInterval: time.Hour, Guard: tightGuard, KeepVacant: true}, b, nil, nil, provisiontest.Quiet())
				runSyncer(t, s)
				pass(time.Second)
				was := s.Current().Counts().Stopped
				require.Zero(t, s.Current().Len())
				ids := b.in(provision.StateActive, 150)
				b.setStates(provision.StateStop, ids...)
				for _, id := range ids {
					s.Hint(id)
				}
				pass(5 * time.Second)
				assert.LessOrEqual(t, s.Current().Counts().Stopped, was+20)
				assert.NotNil(t, s.Status().Held, "left to a whole fetch, which is held")
			})
		})
	}
}
