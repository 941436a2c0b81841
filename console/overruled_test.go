package console

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// A MAC in the ERP that is newer than a lease is named, with what comes of it.
func TestOverruledLeasesAreShown(t *testing.T) {
	w := newWorld(t)
	old, fresh := mac(t, "00:00:5e:00:53:18"), mac(t, "00:00:5e:00:53:fe")
	at := func(s int) time.Time { return testStart.Add(time.Duration(s) * time.Second) }
	w.syncer.snapshot, _ = provision.Build(provision.Input{
		Source: provision.SourceDirect, FetchedAt: at(10),
		Lines: []provision.Line{
			{Subscriber: 1001, MAC: fresh, Addresses: provision.Hosts4(ip("198.51.100.11"))},
			{Subscriber: 1002, MAC: fresh, Addresses: provision.Hosts4(ip("198.51.100.12"))},
			{Subscriber: 1003, MAC: old, Addresses: provision.Hosts4(ip("198.51.100.13"))},
		},
	})
	rec := func(s string, id provision.SubscriberID) lease.Record {
		r := lease.Record{IP: ip(s), MAC: old, Subscriber: id, State: lease.StateBound, Start: at(1), Renewed: at(1), Expires: at(3600)}
		r.ERP.Direct = lease.ERPMAC{MAC: old, At: at(1).UnixNano()}
		return r
	}
	onLine := rec("198.51.100.12", 1002)
	onLine.Option82 = lease.Hex{1, 1, 7}
	w.Leases = fakeLeases{rec("198.51.100.11", 1001), onLine, rec("198.51.100.13", 1003)}

	st := w.status().DHCP.Overruled
	require.Equal(t, 2, st.Count)
	assert.Equal(t, []OverruledView{
		{IP: ip("198.51.100.11"), Subscriber: 1001, MAC: old, ERPMAC: fresh,
			Text: "The ERP got the MAC 00:00:5e:00:53:fe for 198.51.100.11, which is newer than the lease of 00:00:5e:00:53:18: that one is refused when it renews, and 00:00:5e:00:53:fe gets the address as soon as it asks."},
		{IP: ip("198.51.100.12"), Subscriber: 1002, MAC: old, ERPMAC: fresh, Answered: true,
			Text: "The ERP got the MAC 00:00:5e:00:53:fe for 198.51.100.12, which is newer than the lease of 00:00:5e:00:53:18: that one is answered on its line, but not reported any more, until 00:00:5e:00:53:fe appears there."},
	}, st.First)
	x, err := w.explain(t.Context(), "1002")
	require.NoError(t, err)
	require.Len(t, x.Leases, 1)
	assert.Equal(t, &st.First[1], x.Leases[0].Overruled)
	assert.Contains(t, x.Summary, st.First[1].Text)
	x, err = w.explain(t.Context(), "1003")
	require.NoError(t, err)
	assert.Nil(t, x.Leases[0].Overruled)
}
