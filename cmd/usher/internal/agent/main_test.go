package agent

import (
	"os"
	"testing"

	"github.com/usher-agent/usher/provision/statedb"
)

func TestMain(m *testing.M) {
	statedb.Child() // this program reads old state files for itself
	os.Exit(m.Run())
}
