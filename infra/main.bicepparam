// All parameters, from the environment: azd takes its own values (`azd env set`), `az deployment sub
// create` those of the shell. Without any they are the production profile; the least-cost one is
// infra/profiles/least-cost.env. Lists are separated by commas.
//
// azd reads this file and no main.parameters.json (docs/decisions/0032-one-parameter-file.md).
using './main.bicep'

var walClustersText = readEnvironmentVariable('PGKEEP_WAL_CLUSTERS', '')
var allowedIpRangesText = readEnvironmentVariable('PGKEEP_ALLOWED_IP_RANGES', '')
var alertEmailsText = readEnvironmentVariable('PGKEEP_ALERT_EMAILS', '')

// azd knows these by itself.
param environmentName = readEnvironmentVariable('AZURE_ENV_NAME')
param location = readEnvironmentVariable('AZURE_LOCATION')
param principalId = readEnvironmentVariable('AZURE_PRINCIPAL_ID', '')

// What runs.
param authClientId = readEnvironmentVariable('PGKEEP_AUTH_CLIENT_ID')
param workerImage = readEnvironmentVariable('PGKEEP_WORKER_IMAGE', '')
param walClusters = empty(walClustersText) ? [] : split(walClustersText, ',')
param connections = bool(readEnvironmentVariable('PGKEEP_CONNECTIONS', 'false'))
param maxExecutions = int(readEnvironmentVariable('PGKEEP_MAX_EXECUTIONS', '20'))
param scratchServer = readEnvironmentVariable('PGKEEP_SCRATCH_SERVER', '')
param scratchShare = readEnvironmentVariable('PGKEEP_SCRATCH_SHARE', '')

// The repository: as in pgkeep.toml.
param redundancy = readEnvironmentVariable('PGKEEP_REDUNDANCY', 'Standard_RAGZRS')
param fullDays = int(readEnvironmentVariable('PGKEEP_FULL_DAYS', '28'))
param incrementalDays = int(readEnvironmentVariable('PGKEEP_INCREMENTAL_DAYS', '7'))
param chainDays = int(readEnvironmentVariable('PGKEEP_CHAIN_DAYS', '7'))
param evidenceDays = int(readEnvironmentVariable('PGKEEP_EVIDENCE_DAYS', '400'))

// Who may reach it, and what may be done to it.
param privateNetwork = bool(readEnvironmentVariable('PGKEEP_PRIVATE_NETWORK', 'true'))
param allowedIpRanges = empty(allowedIpRangesText) ? [] : split(allowedIpRangesText, ',')
param immutabilityLocked = bool(readEnvironmentVariable('PGKEEP_IMMUTABILITY_LOCKED', 'false'))
param blocksNeedWrite = bool(readEnvironmentVariable('PGKEEP_BLOCKS_NEED_WRITE', 'false'))
param locks = bool(readEnvironmentVariable('PGKEEP_LOCKS', 'true'))
param defender = bool(readEnvironmentVariable('PGKEEP_DEFENDER', 'true'))

// Keys.
param ownStorageKey = bool(readEnvironmentVariable('PGKEEP_OWN_STORAGE_KEY', 'false'))
param hardwareKeys = bool(readEnvironmentVariable('PGKEEP_HARDWARE_KEYS', 'true'))
param recoverVault = bool(readEnvironmentVariable('PGKEEP_RECOVER_VAULT', 'false'))

// The catalogue.
param catalogueDsn = readEnvironmentVariable('PGKEEP_EXISTING_CATALOGUE', '')
param catalogueSku = readEnvironmentVariable('PGKEEP_CATALOGUE_SKU', 'Standard_D2ds_v5')
param catalogueTier = readEnvironmentVariable('PGKEEP_CATALOGUE_TIER', 'GeneralPurpose')
param catalogueHighAvailability = bool(readEnvironmentVariable('PGKEEP_CATALOGUE_HIGH_AVAILABILITY', 'true'))

// Who is told.
param telemetryDays = int(readEnvironmentVariable('PGKEEP_TELEMETRY_DAYS', '90'))
param alertEmails = empty(alertEmailsText) ? [] : split(alertEmailsText, ',')
param alertWebhook = readEnvironmentVariable('PGKEEP_ALERT_WEBHOOK', '')
param runbooks = readEnvironmentVariable('PGKEEP_RUNBOOKS', 'docs/runbooks')
