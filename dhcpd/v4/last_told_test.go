package v4

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision/lease"
)

// Lease times became shorter: nobody knows whether the client hears the shorter one, so its address is kept for it as long as it was told before.
func TestLeaseLastsAsLongAsTheClientWasTold(t *testing.T) {
	there := func(r lease.Record) lease.Record { r.Interface, r.Ifindex = "eth0", 3; return r }
	away := func(r lease.Record, by time.Duration) lease.Record { r.Expires = testNow.Add(by); return r }
	for _, tc := range []struct {
		name string
		rec  lease.Record
		want time.Duration
	}{
		{"of the ERP", there(away(bound(host(11), client(0x11), 1), 5*time.Hour)), 5 * time.Hour},
		{"of a pool", there(away(guest(host(201), stranger), 5*time.Hour)), 5 * time.Hour},
		{"it ends sooner", there(bound(host(11), client(0x11), 1)), time.Hour},
		{"it is over", there(away(bound(host(11), client(0x11), 1), -time.Hour)), time.Hour},
		{"the clock was ahead when it was given", there(with(away(bound(host(11), client(0x11), 1), 5*time.Hour), func(r *lease.Record) { r.Renewed = testNow.Add(time.Hour) })), time.Hour},
		{"another client has it now", there(away(bound(host(11), client(0x44), 1), -time.Second)), time.Hour},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mac := tc.rec.MAC
			if mac == client(0x44) {
				mac = client(0x11)
			}
			d := run(t, wire.Query{Type: wire.Request, MAC: mac, CIAddr: tc.rec.IP}, leases(tc.rec), withGuests)
			assert.Equal(t, wire.Ack, d.Reply.Type, told(d))
			assert.Equal(t, testNow.Add(tc.want), d.Rec.Expires)
			assert.LessOrEqual(t, d.Reply.LeaseTime, uint32(3600), "it is told the new time")
		})
	}
}
