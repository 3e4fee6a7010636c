// One user-assigned identity per role: rights are given to identities, and a process has one.
// docs/how-to/azure-permissions.md says what each of them may do, and why.

@description('Region of the identities.')
param location string

@description('Tags of every resource.')
param tags object

@description('What the names of the identities begin with; the role follows.')
@minLength(3)
param prefix string

// Takes backups: adds blobs, and can neither change, delete nor open them.
resource writer 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: '${prefix}-writer'
  location: location
  tags: tags
}

// Receives WAL, and nothing else.
resource walWriter 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: '${prefix}-wal-writer'
  location: location
  tags: tags
}

// Verifies, restores and drills: the only one that opens what was sealed.
resource restore 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: '${prefix}-restore'
  location: location
  tags: tags
}

// Deletes what has expired; storage itself refuses what is still locked.
resource reaper 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: '${prefix}-reaper'
  location: location
  tags: tags
}

// Rebuilds indexes of clusters; has no right in the repository.
resource maintenance 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: '${prefix}-maintenance'
  location: location
  tags: tags
}

// The function app: decides and records, reads documents, and cannot open a backup.
resource control 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: '${prefix}-control'
  location: location
  tags: tags
}

output writerId string = writer.id
output writerName string = writer.name
output writerClientId string = writer.properties.clientId
output writerPrincipalId string = writer.properties.principalId

output walWriterId string = walWriter.id
output walWriterName string = walWriter.name
output walWriterClientId string = walWriter.properties.clientId
output walWriterPrincipalId string = walWriter.properties.principalId

output restoreId string = restore.id
output restoreName string = restore.name
output restoreClientId string = restore.properties.clientId
output restorePrincipalId string = restore.properties.principalId

output reaperId string = reaper.id
output reaperName string = reaper.name
output reaperClientId string = reaper.properties.clientId
output reaperPrincipalId string = reaper.properties.principalId

output maintenanceId string = maintenance.id
output maintenanceName string = maintenance.name
output maintenanceClientId string = maintenance.properties.clientId
output maintenancePrincipalId string = maintenance.properties.principalId

output controlId string = control.id
output controlName string = control.name
output controlClientId string = control.properties.clientId
output controlPrincipalId string = control.properties.principalId
