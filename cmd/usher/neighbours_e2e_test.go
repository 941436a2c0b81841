package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/userside/emulator"
)

// A subscriber with static settings and a router that the ERP does not know: its
// MAC gets into the ERP without a single DHCP packet.
func TestKernelStaticSubscriberIsReported(t *testing.T) {
	u := startUnnumbered(t, 2, "acl: {enabled: false}\nneighbours: {enabled: true, interfaces: [\"cust*\"], min_time: 1s}\n")
	a, known := u.subs[0], u.subs[1]
	for _, h := range u.subs {
		require.NoError(t, u.Router.IP("route", "add", h.IP.String()+"/32", "dev", h.Port))
	}
	require.NoError(t, a.Host.IP("link", "set", "dev", "eth0", "address", "00:00:5e:00:53:aa"))
	require.NoError(t, u.StartAgent(t.Context()))
	for _, h := range u.subs {
		require.NoError(t, h.Host.IP("addr", "add", h.IP.String()+"/24", "dev", "eth0"))
		require.NoError(t, h.Host.IP("route", "add", "default", "via", "192.0.2.1"))
		// The router asks for the subscriber and is answered: that is a confirmation.
		u.pings(t, u.Router, h.IP.String())
	}
	macInERP := func(h miniature.Home) emulator.MAC {
		c, ok := u.ERP.Customer(h.ID)
		require.True(t, ok)
		return c.Addresses[0].MAC
	}
	eventually(t, 15*time.Second, "the ERP has the MAC", func() (bool, error) {
		return macInERP(a) == emulator.MAC{0, 0, 0x5e, 0, 0x53, 0xaa}, nil
	})
	require.Equal(t, emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x21}, macInERP(known))
	// It is counted when the ERP's answer has come, which is after the ERP has it.
	eventually(t, 5*time.Second, "the report is counted", func() (bool, error) { return u.status(t).Outbox.Sent > 0, nil })
	require.EqualValues(t, 1, u.status(t).Outbox.Sent)
}
