package console

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/garden"
)

type gardenStatus garden.Status

func (g gardenStatus) Status() garden.Status { return garden.Status(g) }

// What is wrong with a file of state_dir is said by readiness, status and page, and keeps nobody from being served.
func TestFilesAreSaid(t *testing.T) {
	w := newWorld(t)
	require.Empty(t, w.status().Files)
	w.syncer.status.StoreError = "store snapshot /var/lib/usher/snapshot: write: no space left on device"
	w.syncer.status.GuardStoreError = "store what the guard knows: permission denied"
	w.syncer.status.Unread = []string{"what the guard knows, /var/lib/usher/guard: the file is damaged; kept as guard.bad"}
	w.Answers = func() (string, string) { return "answers <b>1</b>", "answers 2: input/output error" }
	w.Garden = gardenStatus{Unread: "garden.json 1", StoreError: "garden.json 2: read-only file system"}
	list := w.status().Files
	var text []string
	for _, f := range list {
		text = append(text, f.Text)
	}
	const unread = "A file could not be read at the start, and what it had is not known: "
	assert.Equal(t, []string{
		"A restart would begin with an older snapshot, or with none: store snapshot /var/lib/usher/snapshot: write: no space left on device.",
		"A restart would let pass more than an hour may, and forget what operators rejected: store what the guard knows: permission denied.",
		"A restart would not know what the ERP said last: answers 2: input/output error.",
		"A restart would look up all names of the gardens anew: garden.json 2: read-only file system.",
		unread + "what the guard knows, /var/lib/usher/guard: the file is damaged; kept as guard.bad.",
		unread + "answers <b>1</b>.",
		unread + "garden.json 1.",
	}, text)
	assert.Equal(t, "Make room on the file system: df -h, df -i, du. The agent tries again each ten seconds and needs no restart.", list[0].Advice)
	assert.Equal(t, "Look at the disk (dmesg, smartctl). What is kept aside stays until you remove it.", list[6].Advice)

	rec := get(t, w, "/readyz")
	assert.Equal(t, http.StatusOK, rec.Code)
	var r Readiness
	require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &r))
	assert.True(t, r.Ready)
	page := visible(t, get(t, w, "/").Body.String())
	for _, f := range list {
		assert.Contains(t, r.Warnings, f.Text+" "+f.Advice)
		assert.Contains(t, page, f.Text+" "+f.Advice)
	}

	// A snapshot that could not be read is none for a restart either, until one is stored: once is enough.
	w.syncer.status.Unread = []string{w.syncer.status.StoreError}
	w.syncer.status.GuardStoreError, w.Answers, w.Garden = "", nil, nil
	list = w.status().Files
	require.Len(t, list, 1)
	assert.Equal(t, unread+w.syncer.status.StoreError+".", list[0].Text)
}
