package dhcpd

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

func TestAliveNoticesPacketsThatNobodyTakes(t *testing.T) {
	s, err := New(loopbackOptions(67, 68), Deps{Snapshot: func() *provision.Snapshot { return nil }, Leases: lease.New()})
	require.NoError(t, err)
	require.NoError(t, s.Alive(), "before it listens")
	require.NoError(t, s.Listen())
	defer s.Close()
	require.NoError(t, s.Alive())
	require.NoError(t, s.Alive(), "nothing waits")

	c := listenUDP(t, ip("127.0.0.9"), 0)
	_, err = c.WriteToUDPAddrPort([]byte("no packet, but it waits"), s.LocalAddr())
	require.NoError(t, err)
	require.NoError(t, s.Alive(), "it may have come just now")
	assert.ErrorContains(t, s.Alive(), "nobody takes them")
	s.reads.Add(1)
	require.NoError(t, s.Alive(), "others were taken meanwhile")
	require.NoError(t, s.Close())
	require.NoError(t, s.Alive())
}
