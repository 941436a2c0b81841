package batch

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func listen(t *testing.T) *Conn {
	t.Helper()
	c, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// receive takes n datagrams and gives their texts.
func receive(t *testing.T, c *Conn, n int) (texts []string) {
	t.Helper()
	for len(texts) < n {
		got, err := c.Receive(10 * time.Second)
		require.NoError(t, err)
		require.Positive(t, got, "%d of %d came", len(texts), n)
		for i := range got {
			texts = append(texts, string(c.Packet(i)))
		}
	}
	return texts
}

func TestThereAndBack(t *testing.T) {
	a, b := listen(t), listen(t)
	var want []string
	for i := range 3 * Size / 2 { // more than one call takes
		want = append(want, fmt.Sprintf("datagram %d", i))
		require.NoError(t, a.Queue([]byte(want[i]), b.LocalAddr()))
	}
	require.NoError(t, a.Flush())
	var got []string
	for len(got) < len(want) {
		n, err := b.Receive(-1)
		require.NoError(t, err)
		for i := range n {
			got = append(got, string(b.Packet(i)))
			b.Packet(i)[0] = 'D'
		}
		require.NoError(t, b.Answer(n))
	}
	require.Equal(t, want, got)
	for i, s := range receive(t, a, len(want)) {
		require.Equal(t, "D"+want[i][1:], s)
	}
}

func TestReceiveWaitsNoLonger(t *testing.T) {
	c := listen(t)
	n, err := c.Receive(0)
	require.NoError(t, err)
	require.Zero(t, n)
	begin := time.Now()
	n, err = c.Receive(20 * time.Millisecond)
	require.NoError(t, err)
	require.Zero(t, n)
	require.GreaterOrEqual(t, time.Since(begin), 20*time.Millisecond)
	require.NoError(t, c.Wake())
	n, err = c.Receive(-1)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Empty(t, c.Packet(0))
}

func TestLongDatagramIsCut(t *testing.T) {
	a, b := listen(t), listen(t)
	require.NoError(t, a.Queue(make([]byte, Room+1), b.LocalAddr()))
	require.NoError(t, a.Flush())
	require.Len(t, receive(t, b, 1)[0], Room)
}

func TestListenRefuses(t *testing.T) {
	_, err := Listen(netip.MustParseAddrPort("[::1]:0"))
	require.ErrorContains(t, err, "want an IPv4 address")
	_, err = Listen(netip.MustParseAddrPort("203.0.113.1:0"))
	require.ErrorContains(t, err, "bind 203.0.113.1:0")
}

func TestNothingIsAllocated(t *testing.T) {
	a, b := listen(t), listen(t)
	p := make([]byte, 300)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for range 10 {
			_ = a.Queue(p, b.LocalAddr())
		}
		_ = a.Flush()
		n, _ := b.Receive(-1)
		_ = b.Answer(n)
		_, _ = a.Receive(time.Second)
	}))
}
