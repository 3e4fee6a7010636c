// One rule per alert; docs/reference/alerts.md explains each, docs/runbooks/<name>.md says what to do.
//
// A rule splits by cluster, so that a second cluster's trouble is told although the first one's
// goes on. It keeps its state: told when it begins, told when it is over, and not in between.

@description('Region of the rules: the workspace\'s.')
param location string

@description('Tags of every resource.')
param tags object

@description('What names of rules begin with.')
param prefix string

@description('Id of the workspace that the telemetry is in.')
param workspaceId string

@description('Id of the action group that is told.')
param actionGroupId string

@description('Where people find the runbooks: an address, or the folder in the repository.')
param runbooks string = 'docs/runbooks'

@description('Whether the rules are evaluated; off while a deployment is being set up.')
param enabled bool = true

var by = {
  cluster: { name: 'cluster', operator: 'Include', values: ['*'] }
  code: { name: 'code', operator: 'Include', values: ['*'] }
  label: { name: 'label', operator: 'Include', values: ['*'] }
  silent: { name: 'silent', operator: 'Include', values: ['*'] }
  timer: { name: 'timer', operator: 'Include', values: ['*'] }
}

// Findings are judged by the app, with each cluster's own limits: `codes` of each alert.
var aboutFindings = [
  {
    name: 'backup-failed'
    severity: 0
    says: 'The newest backup is older than promised.'
    codes: ['backup-overdue']
  }
  {
    name: 'wal-behind'
    severity: 0
    says: 'Commits are not in the archive for longer than allowed, or nobody tells.'
    codes: ['wal-behind', 'wal-unreported']
  }
  {
    name: 'job-failed'
    severity: 1
    says: 'A job failed and is not tried again, was not begun, or is passed over each time.'
    codes: ['job-failed', 'run-missed', 'run-skipped']
  }
  {
    name: 'job-lost'
    severity: 1
    says: 'Workers fall silent over the same job.'
    codes: ['job-lost']
  }
  {
    name: 'verification-overdue'
    severity: 1
    says: 'The newest backup that was read back is older than promised.'
    codes: ['verification-overdue']
  }
  {
    name: 'objective-broken'
    severity: 1
    says: 'A recovery would take longer, lose more, or is proven longer ago than promised.'
    codes: ['rto-broken', 'rpo-broken', 'proof-overdue']
  }
  {
    name: 'geo-behind'
    severity: 1
    says: 'The copy in the second region is late, or lacks backups.'
    codes: ['geo-behind', 'geo-overdue', 'object-replication-failed']
  }
  {
    name: 'lifecycle-conflict'
    severity: 1
    says: 'The storage account will delete or archive what is needed.'
    codes: ['lifecycle-would-delete-backup', 'tiered-too-early']
  }
  {
    name: 'expire-refused'
    severity: 1
    says: 'Nothing is deleted any more, because it would not be safe.'
    codes: ['expire-refused']
  }
  {
    name: 'message-poisoned'
    severity: 1
    says: 'Messages could not be taken in.'
    codes: ['message-poisoned']
  }
  {
    name: 'event-queue-stuck'
    severity: 1
    says: 'What workers report is not taken in.'
    codes: ['events-waiting']
  }
  {
    name: 'storage-nearly-full'
    severity: 2
    says: 'More of the storage budget is used than allowed.'
    codes: ['storage-nearly-full']
  }
]

// All other findings, by how bad they are: also those of a release that is newer than these rules.
var aboutOthers = [
  {
    name: 'finding-critical'
    severity: 0
    says: 'Something is being lost, or could not be recovered now.'
    of: 'critical'
  }
  {
    name: 'finding-error'
    severity: 1
    says: 'A promise is broken.'
    of: 'error'
  }
  {
    name: 'finding-warning'
    severity: 2
    says: 'A promise will be broken if nothing is done.'
    of: 'warning'
  }
]

// What a report says stays so until the next one: two days are as far as a rule can look back.
var aboutReports = [
  {
    name: 'drill-failed'
    severity: 1
    says: 'The last drill of a backup that came to a verdict could not restore it.'
    dimensions: [by.cluster, by.label]
    query: [
      'AppTraces'
      '| where Message == "drill-reported"'
      '| extend cluster = tostring(Properties.cluster), label = tostring(Properties.label), verdict = tostring(Properties.verdict)'
      '| where verdict in ("proven", "failed")'
      '| summarize arg_max(TimeGenerated, verdict) by cluster, label'
      '| where verdict == "failed"'
    ]
  }
  {
    name: 'repository-damaged'
    severity: 1
    says: 'A backup that was read back is not what was written.'
    dimensions: [by.cluster, by.label]
    query: [
      'AppTraces'
      '| where Message == "verification-reported"'
      '| extend cluster = tostring(Properties.cluster), label = tostring(Properties.label), passed = tostring(Properties.passed)'
      '| summarize arg_max(TimeGenerated, passed) by cluster, label'
      '| where passed == "false"'
    ]
  }
]

// Nothing of all this is heard when the timers do not run, or what they say does not arrive. A
// summary without `by` has one row also when there is nothing to sum up.
var aboutLooks = [
  {
    name: 'telemetry-silent'
    severity: 0
    says: 'The timers that watch over backups do not run, or are not heard.'
    dimensions: [by.silent]
    query: [
      'AppMetrics'
      '| where Name == "pgkeep.looks"'
      '| extend timer = tostring(Properties.timer)'
      '| summarize heard = min(TimeGenerated), dispatch = countif(timer == "dispatch" and TimeGenerated > ago(20m)), freshness = countif(timer == "freshness" and TimeGenerated > ago(20m)), reconcile = countif(timer == "reconcile")'
      '| extend silent = case(dispatch == 0, "dispatch", freshness == 0, "freshness", reconcile == 0 and heard < ago(150m), "reconcile", "")'
      '| where silent != ""'
    ]
  }
  {
    name: 'looks-failing'
    severity: 1
    says: 'A timer that watches over backups runs, and fails each time.'
    dimensions: [by.timer]
    query: [
      'AppMetrics'
      '| where Name == "pgkeep.looks"'
      '| extend timer = tostring(Properties.timer), outcome = tostring(Properties.outcome)'
      '| where TimeGenerated > ago(30m) or timer == "reconcile"'
      '| summarize good = countif(outcome == "ok") by timer'
      '| where good == 0'
    ]
  }
]

var findingsFrom = [
  'AppMetrics'
  '| where Name == "pgkeep.findings"'
  '| extend cluster = tostring(Properties.cluster), code = tostring(Properties.code), severity = tostring(Properties.severity)'
]
var latestOpen = [
  '| summarize arg_max(TimeGenerated, Sum) by cluster, code'
  '| where Sum > 0'
]
var listed = [for alert in aboutFindings: join(alert.codes, '", "')]

var quick = {
  evaluated: 'PT5M'
  window: 'PT15M'
}
var calm = {
  evaluated: 'PT15M'
  window: 'PT30M'
}

var findingRules = [for alert in aboutFindings: {
  name: alert.name
  severity: alert.severity
  says: alert.says
  pace: alert.severity == 0 ? quick : calm
  dimensions: [by.cluster, by.code]
  query: concat(findingsFrom, ['| where code in ("${join(alert.codes, '", "')}")'], latestOpen)
}]
var otherRules = [for alert in aboutOthers: {
  name: alert.name
  severity: alert.severity
  says: alert.says
  pace: alert.severity == 0 ? quick : calm
  dimensions: [by.cluster, by.code]
  query: concat(findingsFrom, ['| where severity == "${alert.of}" and code !in ("${join(listed, '", "')}")'], latestOpen)
}]
var reportRules = [for alert in aboutReports: union(alert, {
  pace: {
    evaluated: 'PT15M'
    window: 'P2D'
  }
})]
var lookRules = [for alert in aboutLooks: union(alert, {
  pace: {
    evaluated: 'PT5M'
    window: 'PT3H'
  }
})]

var alerts = concat(findingRules, otherRules, reportRules, lookRules)

resource rules 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [for alert in alerts: {
  name: '${prefix}-${alert.name}'
  location: location
  tags: tags
  kind: 'LogAlert'
  properties: {
    displayName: 'pgkeep: ${alert.name}'
    description: '${alert.says} What to do: ${runbooks}/${alert.name}.md'
    severity: alert.severity
    enabled: enabled
    scopes: [workspaceId]
    evaluationFrequency: alert.pace.evaluated
    windowSize: alert.pace.window
    // Stateful; then actions cannot be muted, and need not be.
    autoMitigate: true
    // A new workspace has no telemetry yet, and may not know its tables. tests/unit/infra/test_alerts.py runs the queries.
    skipQueryValidation: true
    criteria: {
      allOf: [
        {
          query: join(alert.query, '\n')
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: 0
          dimensions: alert.dimensions
          failingPeriods: {
            numberOfEvaluationPeriods: 1
            minFailingPeriodsToAlert: 1
          }
        }
      ]
    }
    actions: {
      actionGroups: [actionGroupId]
      customProperties: {
        alert: alert.name
        runbook: '${runbooks}/${alert.name}.md'
        details: 'GET /api/findings'
      }
    }
  }
}]

output alertNames array = [for alert in alerts: alert.name]
