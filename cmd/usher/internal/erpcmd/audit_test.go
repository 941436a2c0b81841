package erpcmd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/provision/audit"
	"github.com/usher-agent/usher/userside/emulator"
)

// What a command changes in the ERP by itself is in the record of the agent's
// state directory, without secrets; look-ups, previews and what was not sent are not.
func TestDirectChangesAreRecorded(t *testing.T) {
	w := newERPWorld(t, emulator.ProfileModern)
	state := t.TempDir()
	path := filepath.Join(t.TempDir(), "usher.yaml")
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil,
		"state_dir: %s\nuserside: {url: %q, key_file: %s}\ndhcp: {enabled: false}\nacl: {enabled: false}\n", state, w.url, keyFile(t, secretKey)), 0o600))
	w.access = []string{"--config", path}
	const secret = "n&ew one"

	w.must("customer", "get-data", "--customer-id", "1001")
	w.must("customer", "state-change", "--customer-id", "1001", "--state-id", "1", "--dry-run")
	code, _, _ := w.run("customer", "ip-add", "--customer-id", "x", "--value", "192.0.2.99")
	require.Equal(t, cli.ExitUsage, code)
	require.NoFileExists(t, filepath.Join(state, "audit.jsonl"))

	code, _, errs := w.run("customer", "ip-add", "--customer-id", "1001", "--value", "192.0.2.99")
	require.Zero(t, code, errs)
	require.NotContains(t, errs, "audit")
	code, _, _ = w.run("erp", "call", "customer", "set_mac_by_ip", "ip=203.0.113.1", "mac=00:00:5e:00:53:01")
	require.Equal(t, cli.ExitFailure, code)
	w.run("customer", "pass-change", "--customer-id", "1001", "--pass-new", secret)

	b, err := os.ReadFile(filepath.Join(state, "audit.jsonl"))
	require.NoError(t, err)
	requireSecret(t, secret, string(b))
	requireSecret(t, secretKey, string(b))
	var got []audit.Record
	for line := range bytes.Lines(b) {
		var r audit.Record
		require.NoError(t, json.Unmarshal(line, &r))
		assert.Equal(t, audit.CallERP, r.Act)
		assert.Equal(t, audit.ByCommand, r.Who.By)
		require.NotNil(t, r.Who.Process)
		assert.EqualValues(t, os.Getpid(), r.Who.PID)
		assert.EqualValues(t, os.Getuid(), r.Who.UID)
		got = append(got, r)
	}
	require.Len(t, got, 3)
	assert.Equal(t, audit.Done, got[0].Result)
	assert.Equal(t, audit.What{Action: "customer.ip_add", Arguments: map[string]string{"customer_id": "1001", "value": "192.0.2.99"}}, got[0].What)
	assert.Equal(t, audit.Refused, got[1].Result)
	assert.NotEmpty(t, got[1].Error)
	assert.Equal(t, redactedText, got[2].What.Arguments["pass_new"])
}

// A change whose record finds no place is made all the same, and says so.
func TestDirectChangeWithoutRecord(t *testing.T) {
	w := newERPWorld(t, emulator.ProfileModern)
	code, _, errs := w.run("customer", "ip-add", "--customer-id", "1001", "--value", "192.0.2.99")
	require.Zero(t, code, errs)
	require.Contains(t, errs, "note: this is not in the audit record: no configuration names a state directory\n")
	code, _, errs = w.run("customer", "get-data", "--customer-id", "1001")
	require.Zero(t, code, errs)
	require.NotContains(t, errs, "audit")
}
