// The operator's page: what is safe, what is promised, what is wrong. infra/workbooks/operator.json.

@description('Region of the workbook.')
param location string

@description('Tags of every resource.')
param tags object

@description('Id of the workspace that the telemetry is in.')
param workspaceId string

@description('What people find it under.')
param displayName string = 'pgkeep'

// Azure wants a UUID for a name; it is the same for the same workspace.
var workbookName = guid(workspaceId, 'operator')

// As a template within this one, which needs no types of Bicep: what reads it offline has none of
// Microsoft.Insights/workbooks. Its expressions are evaluated out here, where the parameters are:
// https://learn.microsoft.com/azure/azure-resource-manager/templates/linked-templates.
#disable-next-line no-deployments-resources
resource page 'Microsoft.Resources/deployments@2025-04-01' = {
  name: 'workbook-operator'
  properties: {
    mode: 'Incremental'
    expressionEvaluationOptions: {
      scope: 'Outer'
    }
    template: {
      '$schema': 'https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#'
      contentVersion: '1.0.0.0'
      resources: [
        {
          type: 'Microsoft.Insights/workbooks'
          apiVersion: '2023-06-01'
          name: workbookName
          location: location
          tags: tags
          kind: 'shared'
          properties: {
            category: 'workbook'
            displayName: displayName
            serializedData: replace(loadTextContent('../workbooks/operator.json'), '__WORKSPACE_ID__', workspaceId)
            sourceId: workspaceId
            version: 'Notebook/1.0'
          }
        }
      ]
    }
  }
}

output workbookId string = resourceId('Microsoft.Insights/workbooks', workbookName)
