package console

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/lease"
)

type fakeTenants map[netip.Addr]access.LeaseStanding

func (f fakeTenants) LeaseStanding(ip netip.Addr) (access.LeaseStanding, bool) {
	t, ok := f[ip]
	return t, ok
}

// Explain and "acl show" say why an address is blocked, or let in, that the ERP does not give its client any more.
func TestExplainTellsOfLeasesThatOutlivedTheirRows(t *testing.T) {
	free := ip("198.51.100.99")
	tests := map[string]struct {
		at       netip.Addr
		holder   provision.SubscriberID
		standing access.LeaseStanding
		want     string
		why      string // of "acl show"; empty: as of any address
	}{
		"the customer is gone": {at: free, holder: 77, standing: access.LeaseStanding{Holder: 77, Owner: 77, State: provision.StateStop, Admits: true},
			want: "Attention: the lease of 198.51.100.99 is of customer 77, whom the ERP does not have any more, and no row gives him the address: it stays stopped until the lease ends, at ",
			why:  "the ERP does not have customer 77 any more, who counts as stopped until its lease ends"},
		"the customer is gone and was active": {at: free, holder: 77, standing: access.LeaseStanding{Holder: 77, Owner: 77, State: provision.StateActive, Admits: true},
			want: "Attention: the lease of 198.51.100.99 is of customer 77, whom the ERP does not have any more, and no row gives him the address: he is not blocked and keeps it until his next renewal is refused, by ",
			why:  "the ERP does not have customer 77 any more, who counts as active until its lease ends"},
		"the row is gone": {at: free, holder: 1002, standing: access.LeaseStanding{Holder: 1002, Owner: 1002, State: provision.StatePause, Known: true, Admits: true},
			want: "Attention: the lease of 198.51.100.99 is of customer 1002, and no row gives him the address: it stays paused until the lease ends, at ",
			why:  "customer 1002 is paused"},
		"another has the address": {at: ip("198.51.100.12"), holder: 77, standing: access.LeaseStanding{Holder: 77, Owner: 1002, State: provision.StateStop},
			want: "Attention: the lease of 198.51.100.12 is of customer 77, whom the ERP does not have any more, and the ERP has the address for customer 1002: no source guard lets 00:00:5e:00:53:77 in with it."},
		"another has the address of an active one": {at: ip("198.51.100.12"), holder: 1001, standing: access.LeaseStanding{Holder: 1001, Owner: 1002, State: provision.StateActive, Known: true, Admits: true},
			want: "Attention: the lease of 198.51.100.12 is of customer 1001, and the ERP has the address for customer 1002: 00:00:5e:00:53:77 keeps it until its next renewal is refused, by "},
		"as it was given": {at: ip("198.51.100.12"), holder: 1002, standing: access.LeaseStanding{Holder: 1002, Owner: 1002, State: provision.StatePause, Known: true, Admits: true}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.DHCP = nil
			f := &fakeACL{}
			w.ACL = &ACLDeps{Wishes: f, Kernel: f, Maintenance: f, Exempt: f.exempt}
			w.ACL.Tenants = fakeTenants{tt.at: tt.standing}
			w.Leases = fakeLeases{{IP: tt.at, MAC: mac(t, "00:00:5e:00:53:77"), Subscriber: tt.holder, State: lease.StateBound, Expires: w.now.Add(3600e9)}}
			x, err := w.explain(t.Context(), tt.at.String())
			require.NoError(t, err)
			if tt.want == "" {
				assert.NotContains(t, x.Summary, "the lease of")
			} else {
				assert.Contains(t, x.Summary, tt.want)
			}
			s, err := w.aclSubject(t.Context(), tt.at.String())
			require.NoError(t, err)
			require.Len(t, s.Addresses, 1)
			assert.Equal(t, !tt.standing.Known && tt.standing.Owner == tt.holder, s.Addresses[0].Gone)
			if tt.why != "" {
				assert.Equal(t, tt.why, s.Addresses[0].Why)
				s, err = w.aclSubject(t.Context(), fmt.Sprint(tt.standing.Owner))
				require.NoError(t, err)
				assert.True(t, len(s.Addresses) > 0 && s.Addresses[len(s.Addresses)-1].IP == tt.at, "asked for by the customer")
			}
		})
	}
}
