package console

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/audit"
	"github.com/usher-agent/usher/provision/lease"
)

// fakeDropper remembers what was ended.
type fakeDropper struct {
	ended []string
	gone  bool // the lease changed meanwhile
	err   error
}

func (f *fakeDropper) DropLease(ip netip.Addr, mac provision.MAC) (bool, error) {
	f.ended = append(f.ended, ip.String()+" "+mac.String())
	return !f.gone, f.err
}

func TestDropLease(t *testing.T) {
	const live, over, kept, quarantined = "198.51.100.11", "198.51.100.12", "198.51.100.13", "198.51.100.14"
	for _, tc := range []struct {
		name    string
		ip      string
		mac     string
		arrange func(*world, *fakeDropper)
		code    int // 0: it is ended
		text    string
		result  audit.Result
	}{
		{name: "live", ip: live, result: audit.Done},
		{name: "live, as it was looked at", ip: live, mac: "00:00:5e:00:53:11", result: audit.Done},
		{name: "given up by nobody knows whom", ip: kept, result: audit.Done},
		{name: "somebody else has it by now", ip: live, mac: "00:00:5e:00:53:99", code: http.StatusConflict, text: "198.51.100.11 is leased to 00:00:5e:00:53:11 by now and not to 00:00:5e:00:53:99 any more", result: audit.Refused},
		{name: "over", ip: over, code: http.StatusConflict, text: "is over already (00:00:5e:00:53:12, bound until ", result: audit.Refused},
		{name: "in quarantine", ip: quarantined, code: http.StatusConflict, text: "nobody has a lease of 198.51.100.14: it is quarantined until ", result: audit.Refused},
		{name: "none", ip: "198.51.100.99", code: http.StatusNotFound, text: "there is no lease of 198.51.100.99; usher explain 198.51.100.99 says", result: audit.Refused},
		{name: "no leases at all", ip: live, arrange: func(w *world, _ *fakeDropper) { w.Leases = nil }, code: http.StatusNotFound, text: "there is no lease", result: audit.Refused},
		{name: "dry run", ip: live, arrange: func(w *world, _ *fakeDropper) { w.DryRun = true }, code: http.StatusConflict, text: "dry run", result: audit.Refused},
		{name: "cannot", ip: live, arrange: func(w *world, _ *fakeDropper) { w.Dropper = nil }, code: http.StatusNotImplemented, text: "cannot end leases", result: audit.Refused},
		{name: "it changed meanwhile", ip: live, arrange: func(_ *world, f *fakeDropper) { f.gone = true }, code: http.StatusConflict, text: "changed meanwhile", result: audit.Refused},
		{name: "disk full", ip: live, arrange: func(_ *world, f *fakeDropper) { f.err = errors.New("disk full") }, code: http.StatusInternalServerError, text: "is over, but that could not be written to disk", result: audit.Partial},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, told, f := newWorld(t), &acts{}, &fakeDropper{}
			ends := w.now.Add(time.Hour)
			w.Leases = fakeLeases{
				{IP: ip(live), MAC: mac(t, "00:00:5e:00:53:11"), Subscriber: 1001, State: lease.StateBound, Expires: ends},
				{IP: ip(over), MAC: mac(t, "00:00:5e:00:53:12"), State: lease.StateBound, Expires: w.now},
				{IP: ip(kept), MAC: mac(t, "00:00:5e:00:53:13"), State: lease.StateReleased, Renewed: w.now.Add(-time.Minute), Expires: ends},
				{IP: ip(quarantined), MAC: mac(t, "00:00:5e:00:53:14"), State: lease.StateQuarantined, Expires: ends},
			}
			w.Dropper, w.Audit = f, told
			if tc.arrange != nil {
				tc.arrange(w, f)
			}
			var of provision.MAC
			if tc.mac != "" {
				of = mac(t, tc.mac)
			}
			got, err := serveWorld(t, w).DropLease(t.Context(), ip(tc.ip), of)
			rec := told.take(t)
			assert.Equal(t, audit.LeaseDrop, rec.Act)
			assert.Equal(t, tc.result, rec.Result)
			if tc.code != 0 {
				var se *StatusError
				require.ErrorAs(t, err, &se)
				assert.Equal(t, tc.code, se.Code)
				assert.Contains(t, err.Error(), tc.text)
				assert.Equal(t, err.Error(), rec.Error)
				if tc.result == audit.Refused && !f.gone {
					assert.Empty(t, f.ended)
				}
				return
			}
			require.NoError(t, err)
			assert.Equal(t, ip(tc.ip), got.Lease.IP)
			assert.Equal(t, w.now, got.Ended.UTC())
			assert.Equal(t, []string{tc.ip + " " + got.Lease.MAC.String()}, f.ended)
			assert.Equal(t, audit.What{IP: got.Lease.IP, MAC: got.Lease.MAC, Customer: got.Lease.Subscriber, Before: rec.What.Before}, rec.What)
			assert.True(t, strings.Contains(rec.What.Before, "until "), rec.What.Before)
		})
	}
}

func TestLeaseOfAnAddress(t *testing.T) {
	w := newWorld(t)
	w.Leases = fakeLeases{{IP: ip("198.51.100.11"), MAC: mac(t, "00:00:5e:00:53:11"), Interface: "cust1", State: lease.StateBound, Expires: w.now.Add(time.Hour)}}
	c := serveWorld(t, w)
	l, err := c.Lease(t.Context(), ip("198.51.100.11"))
	require.NoError(t, err)
	assert.True(t, l.Live)
	assert.Equal(t, "interface cust1", l.Place)
	assert.Equal(t, "bound until 2026-03-01 13:02:00", l.Standing)
	_, err = c.Lease(t.Context(), ip("198.51.100.12"))
	assert.ErrorContains(t, err, "there is no lease of 198.51.100.12")
	_, err = c.Lease(t.Context(), netip.MustParseAddr("2001:db8::1"))
	assert.ErrorContains(t, err, "want an IPv4 address")
}
