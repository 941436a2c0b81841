package portal

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/lease"
)

func TestDirectory(t *testing.T) {
	bound, leased, over, free := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("192.0.2.4")
	snap, _ := provision.Build(provision.Input{
		Lines:           []provision.Line{{Subscriber: 7, Addresses: provision.Hosts4(bound)}},
		CustomerSubnets: []provision.Subnet{{Prefix: netip.MustParsePrefix("203.0.113.8/29"), Subscriber: 7}},
		Subscribers:     []provision.Subscriber{{ID: 7, State: provision.StatePause}, {ID: 8, State: provision.StateStop}},
	})
	leases := lease.New()
	leases.Store(lease.Record{IP: leased, Subscriber: 8, State: lease.StateBound, Expires: time.Now().Add(time.Hour)})
	leases.Store(lease.Record{IP: over, Subscriber: 8, State: lease.StateBound, Expires: time.Now().Add(-time.Hour)})
	const noSet = access.Set(0)
	for _, c := range []struct {
		name  string
		addr  netip.Addr
		set   access.Set
		known bool
		want  Visitor
	}{
		{"by the binding, before the first round", bound, noSet, false, Visitor{StatePaused, 7}},
		{"by the lease, before the first round", leased, noSet, false, Visitor{StateStopped, 8}},
		{"a lease that is over is nobody's", over, noSet, false, Visitor{StateUnknown, 0}},
		{"the kernel is behind the ERP: it still blocks", leased, access.SetPaused, true, Visitor{StatePaused, 8}},
		{"the kernel lets through", bound, noSet, true, Visitor{StateActive, 7}},
		{"a guest", free, access.SetGuests, true, Visitor{StateGuest, 0}},
		{"behind the customer's router", netip.MustParseAddr("203.0.113.9"), noSet, false, Visitor{StatePaused, 7}},
		{"nobody", free, noSet, true, Visitor{StateUnknown, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Directory{Snapshot: func() *provision.Snapshot { return snap }, Leases: leases,
				Standing: func(netip.Addr) (access.Set, bool) { return c.set, c.known }}
			assert.Equal(t, c.want, d.Visitor(c.addr))
		})
	}
}
