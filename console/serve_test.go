package console

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console/door"
)

// 0.0.0.0 is every IPv4 address of the host, and none of IPv6; [::] is both.
func TestListenOnIPv4Alone(t *testing.T) {
	for listen, want := range map[string]bool{"0.0.0.0:0": false, "[::]:0": true} {
		t.Run(listen, func(t *testing.T) {
			if l, err := net.Listen("tcp6", "[::1]:0"); err != nil {
				if os.Getenv("USHER_REQUIRE_KERNEL") == "1" {
					t.Fatal("this host has no IPv6")
				}
				t.Skip("this host has no IPv6")
			} else {
				_ = l.Close()
			}
			ctx, cancel := context.WithCancel(t.Context())
			bound, done := make(chan net.Addr, 1), make(chan error, 1)
			go func() {
				done <- ServeHTTP(ctx, netip.MustParseAddrPort(listen), http.NotFoundHandler(), door.New(door.Options{}), quiet(), func(a net.Addr) { bound <- a })
			}()
			t.Cleanup(func() { cancel(); <-done })
			port := (<-bound).(*net.TCPAddr).Port
			c, err := net.Dial("tcp6", fmt.Sprintf("[::1]:%d", port))
			if want {
				require.NoError(t, err)
				_ = c.Close()
			} else {
				require.Error(t, err)
			}
			c, err = net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
			require.NoError(t, err)
			_ = c.Close()
		})
	}
}
