// Package labtest says which tests can run here.
package labtest

import (
	"os"
	"strings"
	"testing"

	"github.com/usher-agent/usher/provision/link/lab"
)

// Need skips a test without root or the named programs; where the kernel tests
// are required it fails.
func Need(t testing.TB, commands ...string) {
	t.Helper()
	missing := lab.Missing(commands...)
	if len(missing) == 0 {
		return
	}
	if os.Getenv("USHER_REQUIRE_KERNEL") == "1" {
		t.Fatalf("the kernel tests are required, but this machine lacks %s", strings.Join(missing, ", "))
	}
	t.Skipf("needs %s", strings.Join(missing, ", "))
}
