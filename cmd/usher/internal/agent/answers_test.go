package agent

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/provisiontest"
)

// What is wrong with the file of the ERP's answers is known to who asks.
func TestDamagedAnswersAreTold(t *testing.T) {
	l := &liveERP{file: filepath.Join(t.TempDir(), "answers"), log: provisiontest.Quiet()}
	unread, unstored := l.answers()
	require.Empty(t, unread+unstored)
	require.NoError(t, os.WriteFile(l.file, []byte("rubbish"), 0o600))
	_, err := l.memoryFor("https://erp.example.net/api.php")
	require.NoError(t, err)
	unread, unstored = l.answers()
	require.Contains(t, unread, "; kept as answers.bad")
	require.Empty(t, unstored)
}
